"""One request, from the door to an endpoint and back."""
