mod collect;
mod mongod;
mod retention;
