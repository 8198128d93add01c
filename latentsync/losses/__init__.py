"""What training minimises: each loss by itself, and their weighted sum."""
