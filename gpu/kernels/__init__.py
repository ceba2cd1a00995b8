"""Hand-written CUDA, each kernel behind one function of Python with a twin in array-module code beside it."""
