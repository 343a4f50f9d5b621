"""Quality report: every page of a run or a collection, as one HTML file and one CSV file."""
