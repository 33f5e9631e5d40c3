"""What people read: tables, findings, curves, pictures, and the page that holds them."""
