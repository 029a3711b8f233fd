"""What is kept of an exchange: its record, and the metrics drawn from records."""
