"""Who says of a film whether the task succeeded, beside the world model's own judge; and how right each of them is."""
