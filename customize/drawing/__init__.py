"""What people look at: numbers, pictures and texts in; tables, contact sheets and plots out."""
