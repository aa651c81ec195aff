"""jaxsal: attribution for any JAX function."""
