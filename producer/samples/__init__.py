"""Sample documents: files, and the text of each as its truth."""
