"""The endpoints, one file for each noun: a function from collaborators to a blueprint; nothing is global."""
