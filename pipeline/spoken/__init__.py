"""What rows say, as plain text, and in which language: for looking at rows, in curation and in evaluation alike."""
