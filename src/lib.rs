//! Staunch: a DNS resolver that stops AI agents from leaking data through DNS.
//!
//! One query walks listen -> session -> lists -> scoring -> policy -> forward -> answer -> pin -> enforce -> reply and
//! ends in one event; [`pipeline`] is that walk on one screen. Dependencies run one way: pure stages (given `now`)
//! first, then the stages that do I/O, then what joins them.

// Pure: no I/O, no clock.
pub mod answer;
pub mod at_work;
pub mod cache;
pub mod checksum;
pub mod cookie;
pub mod decoy;
pub mod event;
pub mod exposure;
pub mod learn;
pub mod lists;
pub mod local;
pub mod metadata;
pub mod model;
pub mod nat64;
pub mod partition;
pub mod pin;
pub mod policy;
pub mod ports;
pub mod probe;
pub mod range;
pub mod reply;
pub mod rpz;
pub mod session;
pub mod sparing;
pub mod svc_params;
pub mod validate;
pub mod wire;
pub mod words;

// Clocks, sockets, files, the kernel.
pub mod alert;
mod background;
pub mod clock;
pub mod enforce;
pub mod fds;
pub mod feed;
pub mod forward;
pub mod identity;
pub mod lines;
pub mod local_socket;
pub mod lockdown;
pub mod memory;
pub mod mishap;
pub mod outbound;
mod private_dir;
pub mod rdap;
pub mod readiness;
pub mod regular;
pub mod roots;
pub mod store;
pub mod transfer;
pub mod zones;

// What joins them.
pub mod admin;
pub mod capacity;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod evaluate;
pub mod listen;
pub mod pipeline;
pub mod telemetry;
