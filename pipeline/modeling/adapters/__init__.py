"""What was tuned, as a folder: written, described, admitted strictly, put on a base again, merged, taken over from elsewhere."""
