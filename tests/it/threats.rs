//! Every attack and trap of verification that was ever written down for this gateway, by name.
mod concatenation;
mod ids;
mod replay;
mod requests;
mod secrets;
mod signatures;
mod timestamps;
