"""The five modules. Each is one class with a method for every way of doing its work."""
