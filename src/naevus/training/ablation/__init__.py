"""Several recipes under one budget: what each change gains or costs."""
