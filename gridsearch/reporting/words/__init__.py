"""How values, numbers and names are put into words; below every table, figure and page of reporting."""
