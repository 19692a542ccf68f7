"""The program: what people type, and how its parts are started."""
