"""What the checks look for in numbers and calls, each shared by several of them: outliers, harm, falls, clippings."""
