//! Kubernetes as the mesh sees it: its API server, what is watched there, and what that means.
//!
//! Two halves. One speaks: `api` is the API server through the crate `kube`, `follow` lists and watches and survives what goes
//! wrong, `lease` is leadership, `review` asks whose a token is and what he may. The other thinks: `means` is pure functions from
//! Services, EndpointSlices and Pods to the services and instances of the mesh.
//!
//! Deliberately elsewhere: what objects of the mesh say (`outrigger-control`, `spec`), and the store that is made of all
//! this (`outrigger-control`, `store/kubernetes`). Objects pass through here as JSON, so that no field is lost that this
//! version does not know.

pub mod api;
pub mod follow;
pub mod lease;
pub mod means;
pub mod review;
