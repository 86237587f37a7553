"""From a ranking to what people and scripts read: page, tables, JSON, sentences, frames, TensorBoard."""
