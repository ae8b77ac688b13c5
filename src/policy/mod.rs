//! Policy: typed gates, facts, decide. Pure.
