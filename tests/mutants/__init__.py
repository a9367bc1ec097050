"""Small changes to the rules about money, mapping, signatures and access, each of which a test must notice."""
