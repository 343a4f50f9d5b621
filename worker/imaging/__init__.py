"""Page images: pixels, ink, print, figures."""
