"""The text layer of PDF pages: extraction, and the decision whether it is trustworthy."""
