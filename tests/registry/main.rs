//! One binary; its modules are promises, and every test's name is a sentence.

mod harness;

mod entering;
mod rooms;
