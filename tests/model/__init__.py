"""A model of delivery: hypothesis drives real routers on a real server; after each run the promises are checked."""
