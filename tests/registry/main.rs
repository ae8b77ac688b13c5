//! One binary; its modules are promises.
