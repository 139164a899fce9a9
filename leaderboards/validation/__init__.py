"""Is a record that a stranger sent whole, and does it agree with itself? No code in it is run."""
