"""TFRecord files for bert."""
