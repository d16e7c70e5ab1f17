"""`swirl bench`: paired, repeatable measurements, whose sides take turns in processes of their own."""
