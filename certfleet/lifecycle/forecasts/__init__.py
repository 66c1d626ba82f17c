"""When orders will be done: those that wait, or a plan, also under other assumptions."""
