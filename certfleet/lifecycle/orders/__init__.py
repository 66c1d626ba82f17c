"""The order machine: from the wish for a certificate to the stored one, whatever happens on the way."""
