"""`swirl bench`: paired measurements that anyone can repeat. Each side runs in processes of its own, taken in turn."""
