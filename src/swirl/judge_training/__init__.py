"""How models/reward comes to be where it is taught here: one module a `source`, and how a judge is taught."""
