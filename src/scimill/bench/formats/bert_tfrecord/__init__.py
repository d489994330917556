"""TFRecord files of bert."""
