"""The only code that talks to the outside: one package a system."""
