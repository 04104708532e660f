"""One module for each family of names that emitters use. They know nothing of each other."""
