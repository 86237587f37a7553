"""What is asked of a store: reports, comparisons, studies, models, and the doctor's findings."""
