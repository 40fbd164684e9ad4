"""HTML pages: the evaluation report and the sample of region labels."""
