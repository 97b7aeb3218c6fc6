mod observability;

fn main(){}
