"""Stories of incidents, and what plays them: see README.md."""
