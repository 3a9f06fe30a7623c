"""Files of other programs that hold a Llama: Hugging Face's and llama2.c's, both ways. Nothing in them is executed."""
