"""Documents as the API and the commands see them."""
