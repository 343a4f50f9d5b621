"""Words in their places: where on the page image the words of a model's text stand."""
