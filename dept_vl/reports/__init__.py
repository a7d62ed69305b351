"""What people read: scores, budgets, sheets of images, our numbers beside the paper's."""
