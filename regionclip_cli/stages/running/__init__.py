"""What running the stages of a recipe in order needs: what each depends on, and what is done already."""
