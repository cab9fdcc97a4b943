"""Where members are trained: in this process, or in several side by side, one a GPU."""
