"""Economics of a cascade: what a student step costs against a teacher step, and the acceptance at which it pays off."""
