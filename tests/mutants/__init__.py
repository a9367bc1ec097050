"""Small changes to the rules of money, mapping, signatures and access, each of which a test has to notice."""
