//! Generators of resources for the property tests.
