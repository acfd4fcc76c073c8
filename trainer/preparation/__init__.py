"""Documents become questions and answers, checked one by one."""
