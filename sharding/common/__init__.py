"""What all other packages share: errors, tables, progress, runners, command lines and HTML pages."""
